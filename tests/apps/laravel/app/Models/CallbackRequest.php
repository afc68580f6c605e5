<?php

namespace App\Models;

class CallbackRequest extends CompanyRecord
{
}
